//go:build linux

package main

import (
	"slices"
	"testing"

	"github.com/tollwire/tollwire/cmd/llmsim/sim"
)

func TestParseLog(t *testing.T) {
	got := parseLog("2026-11-22T04:42:26.7Z stdout P {\"a\":\n" +
		"2026-11-22T04:42:26.7Z stderr F said meanwhile\n" +
		"2026-11-22T04:42:26.7Z stdout F 1}\n" +
		"2026-11-22T04:42:26.8Z stdout F half writ")
	want := []logLine{{"stderr", "said meanwhile"}, {"stdout", `{"a":1}`}}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTruth(t *testing.T) {
	b, err := truth(&sim.Entry{Client: "summariser-6f599f9d9d-5w4f7/app"})
	if err != nil || b != (booking{Node: "summariser", Service: "summariser", Pod: "summariser-6f599f9d9d-5w4f7", Container: "app"}) {
		t.Errorf("%+v, %v", b, err)
	}
	if b, err := truth(&sim.Entry{Client: "planner/app"}); err == nil {
		t.Errorf("a container that there is not: %+v", b)
	}
}

func TestWhatCheckSaysNow(t *testing.T) {
	a := brief("CAP\n  CAP_BPF  held\nPROCESSES\n  PID  PROGRAM\n  879  go  yes\n  1 seen, 0 not\n\nnothing is missing\n")
	b := brief("CAP\n  CAP_BPF    held\nPROCESSES\n  PID  PROGRAM\n  880  go  no\n  0 seen, 1 not\n\nnothing can be captured\n")
	if got, want := changed(a, b), "  0 seen, 1 not\nnothing can be captured"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
