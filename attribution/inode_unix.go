//go:build unix

package attribution

import (
	"os"
	"syscall"
)

// inode returns the inode number of the file at path.
func inode(path string) (uint64, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(st.Ino), true
}
