//go:build !unix

package attribution

func inode(string) (uint64, bool) { return 0, false }
