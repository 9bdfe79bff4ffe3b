package trial

import "syscall"

// dieWithParent ends the child when the test or the demonstration is killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
