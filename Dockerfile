# The estimator, recorder and pipeline on ROS 2 Jazzy.   docker build -t uns_pose_ros .
# With CUDA: docker build --build-arg TORCH=cu126 -t uns_pose_ros:cuda .   then run it with --gpus all (NVIDIA container toolkit).
FROM ros:jazzy-ros-base

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/${TORCH} XDG_CACHE_HOME=/opt/cache
SHELL ["/bin/bash", "-c"]

WORKDIR /ws
# what changes rarely first: ROS and Python packages are built once. The commands are those of the README.
COPY package.xml src/uns_pose_ros/package.xml
RUN apt-get update && apt-get install -y --no-install-recommends python3-colcon-common-extensions \
    && rosdep update --rosdistro jazzy \
    && rosdep install --from-paths src -iy --rosdistro jazzy && rm -rf /var/lib/apt/lists/*
COPY requirements src/uns_pose_ros/requirements
RUN python3 -m venv --system-site-packages venv && touch venv/COLCON_IGNORE && . venv/bin/activate \
    && pip install -r src/uns_pose_ros/requirements/robot.txt \
    && pip install -r src/uns_pose_ros/requirements/robot-pipeline.txt

COPY . src/uns_pose_ros
RUN . /opt/ros/jazzy/setup.bash && . venv/bin/activate \
    && python "$(which colcon)" build --packages-select uns_pose_ros \
    && . install/setup.bash && ros2 run uns_pose_ros uns-pose weights

COPY .devcontainer/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "run", "uns_pose_ros", "uns-pose", "doctor"]
