# Set-up copies this to pyspark's conf folder, where every start of Spark on this machine reads it.
# Spark takes its classes out of the archive that scripts/class_archives.py made: a third less time
# until the first row. A JVM takes none while a folder with files is on its class path, as the one of
# the settings would be; so that folder stays away and its files are named instead. Where
# SPARK_CONF_DIR says otherwise, nothing of this holds.
if [ "${1:-}" = org.apache.spark.deploy.SparkSubmit ] && [ "$SPARK_CONF_DIR" = "$SPARK_HOME/conf" ]; then
  SPARK_CONF_DIR=$SPARK_HOME/no-conf
  SPARK_SUBMIT_OPTS="${CLASS_ARCHIVE:--XX:SharedArchiveFile=$SPARK_HOME/classes.jsa} -Xlog:disable -Xlog:all=error:stderr -Dlog4j2.configurationFile=$SPARK_HOME/conf/log4j2.properties ${SPARK_SUBMIT_OPTS:-}"
  set -- "$1" --properties-file "$SPARK_HOME/conf/spark-defaults.conf" "${@:2}"
fi
