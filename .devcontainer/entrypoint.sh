#!/bin/sh
. /opt/ros/jazzy/setup.sh
. /ws/install/setup.sh
exec "$@"
