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
	const pod = "summariser-6f599f9d9d-5w4f7"
	for _, c := range []struct {
		client, source string
		want           booking
	}{
		{pod + "/app", "workload", booking{Node: "summariser", Service: "summariser", Pod: pod, Container: "app"}},
		{pod + "/app/probe/rule:probe", "rule:probe", booking{Node: "probe", Service: "summariser", Pod: pod, Container: "app"}},
		{"host/python", "unit", booking{Node: "report", Service: "report"}},
	} {
		if b, source, err := truth(&sim.Entry{Client: c.client}); err != nil || b != c.want || source != c.source {
			t.Errorf("%s: %+v by %s, %v", c.client, b, source, err)
		}
	}
	for _, client := range []string{"planner/app", "curl/7.88.1", ""} {
		if b, _, err := truth(&sim.Entry{Client: client}); err == nil {
			t.Errorf("%q: %+v", client, b)
		}
	}
}

func TestWhatCheckSaysNow(t *testing.T) {
	a := brief("CAP\n  CAP_BPF  held\nPROCESSES\n  PID  PROGRAM\n  879  go  yes\n  1 seen, 0 not\n\nnothing is missing\n")
	b := brief("CAP\n  CAP_BPF    held\nPROCESSES\n  PID  PROGRAM\n  880  go  no\n  0 seen, 1 not\n\nnothing can be captured\n")
	if got, want := changed(a, b), "  0 seen, 1 not\nnothing can be captured"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
