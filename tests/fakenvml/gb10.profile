# DGX Spark: one GPU without memory of its own, and without a power limit
include=h100.profile
count=1
dev.*.name=NVIDIA GB10
dev.*.cc=12.1
dev.*.nvmlDeviceGetMemoryInfo.rc=3
dev.*.nvmlDeviceGetMemoryInfo_v2.rc=3
dev.*.nvmlDeviceGetEnforcedPowerLimit.rc=3
