package probes

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// How many fresh programs of each kind are started, and how many of their first requests
// must be seen, %.
var (
	tries = flag.Int("tries", 200, "fresh programs of each kind in TestAttachRaces")
	share = flag.Float64("share", 95, "first requests that must be seen in TestAttachRaces, %")
	// Three round trips, to find, to connect and to shake hands, to a provider's nearest front.
	away = flag.Duration("away", 20*time.Millisecond, "how long the server of TestAttachRaces takes to answer a ClientHello")
)

// TestAttachRaces: a file that nobody had mapped before is tapped in time for the first
// request of the process that maps it, and the share of those in time is printed.
func TestAttachRaces(t *testing.T) {
	c := start(t, Config{Rings: 1}) // its own: hundreds of files are soon let go by what closes all at once
	var now atomic.Int64            // time.Duration, how long the server takes
	url, ca := serverAway(t, true, func() time.Duration { return time.Duration(now.Load()) })
	libssl := strings.Fields(run(t, nil, "sh", "-c", "ldd $(command -v curl) | awk '/libssl/{print $3}'"))[0]
	client := buildClient(t, "", "0")
	for name, try := range map[string]func(dir, id string){
		"curl with a fresh libssl": func(dir, id string) {
			run(t, nil, "cp", "-L", libssl, filepath.Join(dir, filepath.Base(libssl)))
			run(t, []string{"LD_LIBRARY_PATH=" + dir}, "curl", "--http1.1", "--silent", "--show-error", "--cacert", ca, "--data", "{}", url+"/v1/x?id="+id)
		},
		"a fresh Go program": func(dir, id string) {
			run(t, nil, "cp", client, filepath.Join(dir, "client"))
			run(t, []string{"SSL_CERT_FILE=" + ca}, filepath.Join(dir, "client"), url+"/v1/x?id="+id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			seen, late := 0, 0
			var took []int64
			for i := range *tries {
				id := fmt.Sprintf("race-%d-%d", i, began.UnixNano())
				dir := t.TempDir()
				now.Store(int64(float64(*away) * slower(t))) // as the agent is
				took = append(took, now.Load())
				try(dir, id)
				for range 100 { // its record may take a while
					if found := c.seen(flow.Write, id); len(found) == 1 && found[0].whole("POST /v1/x?id="+id, "{}") {
						seen++
						if found[0].late {
							late++
						}
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
			slices.Sort(took)
			t.Logf("attach races: %s: %d of %d first requests seen, %d of them late_attach; the server took %v", name, seen, *tries, late,
				time.Duration(took[len(took)/2]).Round(time.Millisecond))
			if float64(seen) < *share/100*float64(*tries) {
				t.Errorf("want %.0f%%", *share)
			}
		})
	}
}

// slower is how many times slower than one of two idle CPUs this machine starts a program
// just now; 1 at the least.
func slower(t *testing.T) float64 {
	const idle = 20 * time.Millisecond
	began := time.Now()
	run(t, nil, "curl", "--version")
	return max(1, float64(time.Since(began))/float64(idle))
}
