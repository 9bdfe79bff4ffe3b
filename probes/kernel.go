package probes

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kernel returns what uname says of the release and the machine.
func kernel() (release, machine string, err error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", "", fmt.Errorf("ask for the kernel's version: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:]), nil
}

// atLeast compares a kernel's release with a version.
func atLeast(release string, major, minor int) bool {
	var have [2]int
	for i, s := range strings.SplitN(release, ".", 3) {
		if i < 2 {
			have[i], _ = strconv.Atoi(strings.TrimRight(s, "-+abcdefghijklmnopqrstuvwxyz"))
		}
	}
	return have[0] > major || have[0] == major && have[1] >= minor
}
