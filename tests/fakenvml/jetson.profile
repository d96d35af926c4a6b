# Jetson: returns SUCCESS with zeros, and supports few other functions
driver=540.4.0
cuda=12060
count=1
dev.0.name=Orin (nvgpu)
dev.0.uuid=GPU-00000000-0000-0000-0000-000000000001
dev.0.mem.total=0
dev.0.mem.used=0
dev.0.cc=8.7
