# `headwater produce` and `headwater bridge`, without Spark:
#   docker build -f containers/producer.Dockerfile -t headwater-producer .
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/headwater
ENV PATH=/opt/headwater/bin:$PATH
# First what seldom changes. Nothing is compiled: a library without a wheel would fail here.
COPY requirements/build.lock requirements/producer.lock requirements/
RUN pip install --no-cache-dir --require-hashes --only-binary :all: \
      -r requirements/build.lock -r requirements/producer.lock
COPY setup.py pyproject.toml ./
COPY headwater headwater
COPY lakehouse lakehouse
COPY producer producer
COPY streaming streaming
COPY batch batch
COPY conf conf
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON}
RUN useradd --uid 10001 --no-create-home headwater && install -d -o headwater /data
COPY --from=build /opt/headwater /opt/headwater
ENV PATH=/opt/headwater/bin:$PATH PYTHONUNBUFFERED=1 HEADWATER_STORAGE=/data
WORKDIR /data
VOLUME /data
USER 10001
# SIGTERM reaches the command itself, which stops after what is on its way.
ENTRYPOINT ["headwater"]
CMD ["bridge", "--help"]
