package aead

import "golang.org/x/sys/cpu"

// hasAES says whether this machine has what the assembly back end needs.
var hasAES = cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
