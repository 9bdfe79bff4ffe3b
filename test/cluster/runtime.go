//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/attribution/cri"
	"github.com/tollwire/tollwire/flow"
)

// runtime holds what the container runtime tells where there is no API server, by its
// socket and by its own files, to what the API server says of the same containers.
func (t *trialRun) runtime(ctx context.Context, v *verdict) error {
	out, err := t.n.kubectl(ctx, "get", "pods", "--all-namespaces", "--field-selector", "status.phase=Running", "-o", "json")
	if err != nil {
		return err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name, Namespace, UID string
				OwnerReferences      []struct{ Kind string }
			}
			Status struct {
				ContainerStatuses []struct{ Name, ContainerID string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return err
	}
	socket, err := cri.New(cri.Config{HostRoot: "/"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go socket.Run(ctx)
	config := attribution.Defaults()
	config.HostRoot = "/"
	files, err := attribution.New(config)
	if err != nil {
		return err
	}
	containers := 0
	for _, p := range list.Items {
		if owners := p.Metadata.OwnerReferences; len(owners) > 0 && owners[0].Kind == "Job" {
			continue // its containers end while they are looked at
		}
		for _, c := range p.Status.ContainerStatuses {
			_, id, _ := strings.Cut(c.ContainerID, "://")
			containers++
			var pod *attribution.Pod
			err := await(ctx, "the runtime's word on "+p.Metadata.Name, func() (err error) {
				var ok bool
				if pod, ok = socket.Pod(p.Metadata.UID, id); !ok {
					err = fmt.Errorf("not known; %d questions failed", socket.Failures())
				}
				return err
			})
			if err != nil {
				return err
			}
			if pod.Name != p.Metadata.Name || pod.Namespace != p.Metadata.Namespace || (pod.Controller != "") != (len(p.Metadata.OwnerReferences) > 0) {
				v.problem("the runtime's socket says of %s/%s: %+v", p.Metadata.Namespace, p.Metadata.Name, pod)
			}
			pid, err := processIn(id)
			if err != nil {
				return err
			}
			o := files.Owner(flow.Proc{PID: pid}, 0, attribution.Evidence{})
			if o.PodName != p.Metadata.Name || o.Namespace != p.Metadata.Namespace || o.ContainerName != c.Name || o.PodUID != p.Metadata.UID || o.ContainerRuntime != "containerd" {
				v.problem("the runtime's files say of %s/%s/%s: %+v", p.Metadata.Namespace, p.Metadata.Name, c.Name, o)
			}
		}
	}
	t.say("containerd's socket and files name %d containers as the API server does", containers)
	return nil
}

// processIn returns a process of the container.
func processIn(id string) (uint32, error) {
	all, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), id) {
			pid, err := strconv.ParseUint(filepath.Base(filepath.Dir(path)), 10, 32)
			return uint32(pid), err
		}
	}
	return 0, fmt.Errorf("container %s has no process", id)
}
