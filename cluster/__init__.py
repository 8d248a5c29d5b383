"""The machines: connect to Ray, run worker groups, say whose fault it was."""
