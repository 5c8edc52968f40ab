package aead

import "golang.org/x/sys/cpu"

// hasAES says whether this machine has what the assembly back end needs.
var hasAES = cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSSE3
