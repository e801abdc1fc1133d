# The image of one Gatepost instance. It holds no state and no secret; docker-compose.yml shows it at work.
#
# Built from the tag, every build has the latest fixes of the base. To build the same image again, byte by byte, name the
# base by its digest (`docker buildx imagetools inspect python:3.13-slim` tells it) and date the files by the commit:
#
#   docker buildx build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:... \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
#     --output type=image,name=gatepost,rewrite-timestamp=true .

# LOCK=otel is run with OpenTelemetry beside it, for TRACES=on.

ARG PYTHON_IMAGE=python:3.13-slim
ARG LOCK=run

FROM ${PYTHON_IMAGE} AS build
ARG LOCK

# The packages go to an environment of their own, without pip: nothing in the image can install anything.
# Wheels only, each with a known hash: no compiler is needed and no package runs code while it is installed.
RUN python -m venv --without-pip /opt/venv
COPY requirements/run.lock requirements/otel.lock /build/
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
      --require-hashes --no-deps --only-binary :all: -r /build/${LOCK}.lock

# Compiled here, since the running image cannot write. The hash of the source decides, not its date.
COPY service /app/service
RUN PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /app/service


FROM ${PYTHON_IMAGE}

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app/service /app/service
COPY config /app/config

ENV PATH=/opt/venv/bin:$PATH \
    HOME=/nonexistent \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000

WORKDIR /app

# By number, so that a platform can see that it is not root; nothing here needs the number to have a name.
USER 10001:10001

EXPOSE 8000
STOPSIGNAL SIGTERM

# /health, not /ready: an unhealthy container gets replaced, and a new one would not bring an absent Redis back.
# No proxy variable may lead this question astray, hence the opener without proxies.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=2)"]

CMD ["python", "-m", "service"]
