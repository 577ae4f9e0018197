# The service, on OpenVINO: docker build -t crnn . && docker run --rm -p 127.0.0.1:8000:8000 --read-only crnn
# docs/container.md says more.

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/crnn && /opt/crnn/bin/pip install --no-cache-dir ".[openvino,serve]"

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="crnn" \
      org.opencontainers.image.description="Reads words in pictures over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
# The same path as where it was built, for a virtual environment cannot be moved. It stays root's: the service cannot
# change its own code.
COPY --from=build /opt/crnn /opt/crnn
# A new volume that is mounted here belongs to whom the folder does; without one, nothing is written into it.
RUN mkdir /cache && chown 10001:10001 /cache
# Nothing is written: the modules were compiled when they were installed, and what is built from a model stays in memory
# unless CRNN_CACHE is set to a folder that lasts.
ENV PATH=/opt/crnn/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/nonexistent
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["crnn", "serve", "--host", "0.0.0.0", "--port", "8000"]
