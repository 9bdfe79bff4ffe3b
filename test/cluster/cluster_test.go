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
		client string
		want   word
	}{
		{pod + "/app", word{booking{Node: "summariser", Service: "summariser", Pod: pod, Container: "app"}, "workload", workload{Deployment: "summariser"}}},
		{pod + "/app/probe/rule:probe", word{booking{Node: "probe", Service: "summariser", Pod: pod, Container: "app"}, "rule:probe", workload{Deployment: "summariser"}}},
		{"host/python", word{booking{Node: "report", Service: "report"}, "unit", workload{}}},
	} {
		if got, err := truth(&sim.Entry{Client: c.client}); err != nil || got.word != c.want {
			t.Errorf("%s: %+v, %v", c.client, got, err)
		}
	}
	for _, client := range []string{"planner/app", "curl/7.88.1", ""} {
		if got, err := truth(&sim.Entry{Client: client}); err == nil {
			t.Errorf("%q: %+v", client, got)
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
