//go:build !linux

package trial

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
