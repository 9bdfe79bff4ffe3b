package probes

import "testing"

func TestPreempts(t *testing.T) {
	for _, k := range []struct {
		release, version, mode string
		fentry, raw            bool
	}{
		{"5.10.0-46-amd64", "#1 SMP Debian 5.10.251-1 (2026-03-08)", "", false, false},
		{"6.12.107+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-10-01)", "voluntary", false, false},
		{"6.12.107+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-10-01)", "full", true, false},
		{"6.12.107+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-10-01)", "", false, false},
		{"6.18.5", "#1 SMP PREEMPT_DYNAMIC @0", "lazy", true, false},
		{"6.1.0-28-rt-amd64", "#1 SMP PREEMPT_RT Debian 6.1.119-1 (2024-11-22)", "", true, false},
		{"6.6.30-v8+", "#1770 SMP PREEMPT Thu May 9 14:22:06 BST 2024", "", true, false},
		{"7.2.13+deb14-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 7.2.13-1 (2026-11-20)", "lazy", true, true},
	} {
		if preempts(k.release, k.version, k.mode) != k.fentry || rawPreempts(k.release) != k.raw {
			t.Errorf("%s %s, %q: want fentry %v, raw tracepoints %v", k.release, k.version, k.mode, k.fentry, k.raw)
		}
	}
}
