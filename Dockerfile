# The service as an image: dependencies from the lock, by hash; no compiler, no pip and no shell account in what runs.
#
#   docker build --tag saasbase-server .
#   docker run --publish 127.0.0.1:8000:8000 --volume saasbase:/var/lib/saasbase saasbase-server

# To pin it: --build-arg PYTHON=python:3.13-slim-bookworm@sha256:..., with the digest you have looked at.
ARG PYTHON=python:3.13-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/saasbase
RUN python3 -m venv /opt/saasbase
COPY requirements.lock ./
RUN /opt/saasbase/bin/python -m pip install --require-hashes --only-binary :all: --requirement requirements.lock
COPY pyproject.toml README.md LICENSE alembic.ini ./
COPY alembic alembic
COPY app app
# In place, because the migrations lie beside the package; then without what only installing needs.
RUN /opt/saasbase/bin/python -m pip install --no-deps --no-build-isolation --editable . \
 && /opt/saasbase/bin/python -m pip uninstall --yes hatchling editables pip \
 && /opt/saasbase/bin/python -m compileall -q /opt/saasbase/lib app alembic

FROM ${PYTHON}
LABEL org.opencontainers.image.title="SaaSBase Server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 saasbase \
 && useradd --system --uid 10001 --gid saasbase --home-dir /var/lib/saasbase --shell /usr/sbin/nologin saasbase \
 && install --directory --owner saasbase --group saasbase --mode 0750 /var/lib/saasbase
# Nothing is installed in what runs: away with the base's own pip, and with what could bring it back. A base may also have none.
RUN modules="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
 && library="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && rm -rf "${library}/ensurepip" "${modules}/pip" "${modules}"/pip-*.dist-info /usr/local/bin/pip*
COPY --from=build /opt/saasbase /opt/saasbase
COPY --from=build /srv/saasbase /srv/saasbase
ENV PATH=/opt/saasbase/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SAASBASE_DB_URL=sqlite:////var/lib/saasbase/saasbase.db \
    SAASBASE_STORAGE__LOCAL__BASE_PATH=/var/lib/saasbase/documents
# Only this folder and /tmp are written to: the root may be read-only.
WORKDIR /var/lib/saasbase
VOLUME /var/lib/saasbase
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["saasbase"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
