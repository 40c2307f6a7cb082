"""The experiments that are commands: `bit-speech pretrain` and `bit-speech train KIND`. One file, one experiment."""
