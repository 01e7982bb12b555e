# The gateway alone. State goes to /data: mount a volume there, or a new container knows none of the keys. Secrets come
# by environment or by file, never into the image.

FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python3 -m venv --without-pip /opt/gmi-gateway
# `--build-arg EXTRAS=otel` for an image that can trace.
ARG EXTRAS=
COPY requirements/runtime.txt requirements/otel.txt requirements/build.txt requirements/
RUN python3 -m pip --python /opt/gmi-gateway/bin/python install --require-hashes -r requirements/${EXTRAS:-runtime}.txt \
    && python3 -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY config /etc/gmi-gateway
RUN chmod -R a+rX /etc/gmi-gateway \
    && python3 -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && python3 -m pip --python /opt/gmi-gateway/bin/python install --no-deps dist/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="gmi-gateway" \
      org.opencontainers.image.description="A transparent, light gateway that lets a team share one GMI Cloud account" \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed number, so that a volume or a policy can name it.
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid gateway --home-dir /data --no-create-home --shell /usr/sbin/nologin gateway \
    && install -d -o gateway -g gateway -m 0750 /data
COPY --from=build /opt/gmi-gateway /opt/gmi-gateway
COPY --from=build /etc/gmi-gateway /etc/gmi-gateway
ENV PATH=/opt/gmi-gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_CONFIG=/etc/gmi-gateway/gateway.yaml \
    GATEWAY_SERVER_HOST=0.0.0.0 \
    GATEWAY_SERVER_PORT=8080 \
    GATEWAY_SERVER_STATE_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# http.client, since a proxy that the environment names must not stand between the check and the gateway.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
gateway = http.client.HTTPConnection('127.0.0.1', int(os.environ['GATEWAY_SERVER_PORT']), timeout=2); \
gateway.request('GET', '/healthz'); \
sys.exit(gateway.getresponse().status != 200)"]
ENTRYPOINT ["gmi-gateway"]
CMD ["serve"]
