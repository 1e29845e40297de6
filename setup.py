"""The wheel `headwater`.

It requires neither pyspark, delta-spark, pandas nor pyarrow: a Databricks Runtime brings its own.
A laptop installs requirements/local.lock, which pins all of it with hashes.
"""

from setuptools import find_packages, setup

PACKAGES = ["headwater", "lakehouse", "producer", "streaming", "batch", "conf"]

setup(
    name="headwater",
    version="0.1.0",
    description="A Spark Structured Streaming lakehouse for e-commerce events",
    python_requires=">=3.11",
    packages=find_packages(include=[*PACKAGES, *(f"{package}.*" for package in PACKAGES)]),
    package_data={
        "conf": [
            "*.conf",
            "*.properties",
            "contracts/*.yaml",
            "contracts/tables/*.yaml",
            "sources/*/*.properties",
            "sources/*/*.yaml",
            "sources/*/tables/*.yaml",
            "environments/*.yml",
        ]
    },
    install_requires=[
        "click>=8.1",
        "narwhals>=2.28",
        "open-data-contract-standard>=3.2",
        "jsonschema>=4.18",
        "pydantic-settings>=2.3",
        "pyyaml>=6.0",
        "rich>=13",
        "tenacity>=8.2",
    ],
    extras_require={
        # Ranges, for whoever installs the wheel by hand; the lock is what is tested.
        "local": [
            "pyspark>=4.1,<4.2",
            "delta-spark>=4.1,<4.4.1",
            "pandas>=2.2",
            "pyarrow>=17",
            "deltalake>=1.0",
            "psutil>=5.9",
            "duckdb>=1",
            "pymysql>=1.1",
            "psycopg[binary]>=3.2",
            "confluent-kafka>=2.10",
            "faker>=30",
            "numpy>=2",
            "orjson>=3.9",
        ],
        # The quality gate: `headwater quality`, and publish where a version was not checked before.
        "quality": ["great-expectations>=1.4", "pandas>=2.2"],
        # The page of `headwater report`.
        "report": ["plotly>=6", "duckdb>=1", "deltalake>=1.0", "pyarrow>=17"],
        "synapse": ["mssql-python>=1.0", "azure-identity>=1.15"],
        "azure": ["azure-identity>=1.15", "azure-eventhub>=5.11"],
        "producer": [
            *("confluent-kafka>=2.10", "faker>=30", "numpy>=2", "orjson>=3.9", "pyarrow>=17")
        ],
    },
    entry_points={
        "console_scripts": [
            "headwater=headwater.cli:main",
            "headwater-job=headwater.job:main",
        ]
    },
)
