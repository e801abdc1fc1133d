# The image of one Gatepost instance. It holds no state and no secret; docker-compose.yml shows it at work.

FROM python:3.13-slim AS build

# The packages go to an environment of their own, without pip: nothing in the image can install anything.
# Wheels only, each with a known hash: no compiler is needed and no package runs code while it is installed.
RUN python -m venv --without-pip /opt/venv
COPY requirements/run.lock /build/run.lock
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes --no-deps --only-binary :all: -r /build/run.lock

# Compiled here, since the running image cannot write. The hash of the source decides, not its date.
COPY service /app/service
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/service


FROM python:3.13-slim

RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin gatepost

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app/service /app/service
COPY config /app/config

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000

WORKDIR /app

# By number, so that a platform can see that it is not root.
USER 10001:10001

EXPOSE 8000
STOPSIGNAL SIGTERM

# /health, not /ready: an unhealthy container gets replaced, and a new one would not bring an absent Redis back.
# No proxy variable may lead this question astray, hence the opener without proxies.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=2)"]

CMD ["python", "-m", "service"]
