# The streams and the batch jobs, with Spark and a JRE:
#   docker build -f containers/spark.Dockerfile -t headwater-spark .
ARG PYTHON=python:3.11.13-slim-bookworm
ARG MAVEN=maven:3.9.11-eclipse-temurin-17
ARG JRE=eclipse-temurin:17.0.16_8-jre-jammy

FROM ${MAVEN} AS jars
WORKDIR /src
COPY pom.xml ./
RUN mvn -q -B -ntp -P spark dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory=/jars

FROM ${JRE} AS jre

FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/headwater
ENV PATH=/opt/headwater/bin:$PATH
# First what seldom changes. pyspark alone comes as a source, and has nothing to compile.
COPY requirements/build.lock requirements/spark.lock requirements/
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.lock \
 && pip install --no-cache-dir --require-hashes --no-build-isolation -r requirements/spark.lock
ENV SPARK_HOME=/opt/headwater/lib/python3.11/site-packages/pyspark
COPY --from=jars /jars/ $SPARK_HOME/jars/
COPY conf/spark-defaults.conf conf/log4j2.properties $SPARK_HOME/conf/
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
COPY --from=jre /opt/java/openjdk /opt/java
COPY --from=build /opt/headwater /opt/headwater
ENV JAVA_HOME=/opt/java \
    PATH=/opt/headwater/bin:/opt/java/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEADWATER_STORAGE=/data
WORKDIR /data
VOLUME /data
USER 10001
# SIGTERM reaches the command itself, which stops at a batch boundary.
ENTRYPOINT ["headwater"]
CMD ["stream", "--help"]
