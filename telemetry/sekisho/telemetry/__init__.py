"""What leaves the box: typed events, a spool that forgets nothing, MQTT to the monitoring centre."""
