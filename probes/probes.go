// Package probes finds the programs whose plaintext can be read, puts the kernel
// side's taps on them, and hands out what those see as flow.Data.
//
// Files are probed, not processes: one attachment on a library's inode serves
// every process that maps it, in every container, and it goes with the agent:
// nothing is pinned, so that the kernel takes all of it back when the agent ends
// in whatever way.
package probes
