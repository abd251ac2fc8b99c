# The estimator, recorder and pipeline on ROS 2 Jazzy.   docker build -t uns_pose_ros .
# With CUDA: docker build --build-arg TORCH=cu126 -t uns_pose_ros:cuda .   then run it with --gpus all (NVIDIA container toolkit).
FROM ros:jazzy-ros-base

ARG TORCH=cpu
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 XDG_CACHE_HOME=/opt/cache

WORKDIR /ws
# what changes rarely first: ROS and Python packages are built once
COPY package.xml src/uns_pose_ros/package.xml
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-colcon-common-extensions \
    && rosdep update && rosdep install --from-paths src -iy --rosdistro jazzy && rm -rf /var/lib/apt/lists/*
# numpy below 2: the distribution's packages, such as cv_bridge, are built against it
RUN pip install --index-url https://download.pytorch.org/whl/${TORCH} torch \
    && pip install safetensors msgspec tyro "filelock>=4.1" "numpy<2" scikit-image fast-simplification trimesh matplotlib onnxruntime rosbags pycolmap

COPY . src/uns_pose_ros
RUN . /opt/ros/jazzy/setup.sh && colcon build --packages-select uns_pose_ros \
    && . install/setup.sh && ros2 run uns_pose_ros uns-pose weights

COPY .devcontainer/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "run", "uns_pose_ros", "uns-pose", "doctor"]
