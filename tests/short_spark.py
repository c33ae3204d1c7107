"""Spark for processes that live for less than a minute: a virtual machine that starts fast rather than runs fast."""

from __future__ import annotations

JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""For virtual machines that end before a thorough compilation of their code pays."""

SHORT_LIVED = f"--driver-java-options '-Dderby.system.home=/tmp -Dlog4j2.level=warn {JVM}'"
"""For PYSPARK_SUBMIT_ARGS; what spark-defaults.conf says of the driver's options is said again, as these replace it."""
