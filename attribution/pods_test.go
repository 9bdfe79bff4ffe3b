package attribution

import (
	"testing"
	"time"
)

func TestCronJobNames(t *testing.T) {
	born := time.Unix(29_000_000*60, 0)
	for _, c := range []struct {
		job, want string
	}{
		{"nightly-29000000", "nightly"},
		{"a-b-28999000", "a-b"},
		{"nightly-12345678", ""},
		{"nightly-2900000", ""},
		{"-29000000", ""},
		{"29000000", ""},
		{"nightly-2900000x", ""},
	} {
		if got, ok := CronJobOf(c.job, born); got != c.want || ok != (c.want != "") {
			t.Errorf("CronJobOf(%q) = %q, %v", c.job, got, ok)
		}
	}
}
