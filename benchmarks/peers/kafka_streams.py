"""Kafka Streams in Java, compiled here against the jars of KAFKA_HOME."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("LastItems.java")


def compile_job(kafka_home: Path, folder: Path) -> bool:
    """Compile the job into `folder`; False where there is no Java compiler or no Kafka Streams jar."""
    compiler = shutil.which("javac")
    if compiler is None or not list((kafka_home / "libs").glob("kafka-streams-*.jar")):
        return False
    subprocess.run([compiler, "-cp", f"{kafka_home / 'libs'}/*", "-d", str(folder), str(SOURCE)], check=True)
    return True


def command(
    kafka_home: Path, folder: Path, bootstrap: str, topic: str, count: int, *, threads: int, caching: bool, app_id: str
) -> list[str]:
    """How to run the compiled job over the first `count` events of `topic`."""
    java = ["java", "-Xmx1g", "-cp", f"{kafka_home / 'libs'}/*:{folder}", "LastItems"]
    return [*java, bootstrap, topic, str(count), str(threads), str(folder / app_id), str(caching).lower(), app_id]
