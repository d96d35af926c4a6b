# 8 x H100, the first one cut into two instances
include=h100.profile
dev.0.mig=1
dev.0.mig.0=40
dev.0.mig.1=41
dev.40.uuid=MIG-377e0049-554c-540b-93c6-d0976f8426cb
dev.40.name=NVIDIA H100 80GB HBM3 MIG 3g.40gb
dev.41.uuid=MIG-fe59bfcd-3946-5d58-a00e-183ee397373b
dev.41.name=NVIDIA H100 80GB HBM3 MIG 3g.40gb
