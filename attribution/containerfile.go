package attribution

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// containerFile is what a container runtime wrote of a container when it started
// it. It needs neither the API server nor the runtime's socket.
type containerFile struct {
	runtime string

	// Kubernetes' names, when the kubelet asked for the container.
	name, podName, namespace, podUID string

	runtimeName string            // the runtime's own name for it, or the compose service's
	project     string            // the compose project's
	labels      map[string]string // docker's
}

// maxContainerFile bounds what is read of one such file. podman's list names every
// container that it has.
const maxContainerFile = 4 << 20

var errNoContainer = errors.New("no runtime's file names the container")

// readContainerFile looks for the container below root, the machine's root folder.
// The error wraps errNoContainer where no runtime knows it.
func readContainerFile(root, id string) (*containerFile, error) {
	if len(id) != 64 || !isHex(id) {
		return nil, errNoContainer
	}
	read := func(name string) ([]byte, error) {
		f, err := os.Open(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxContainerFile))
	}
	var failed error
	for _, place := range containerPlaces {
		b, err := read(strings.ReplaceAll(place.file, "ID", id))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			var c *containerFile
			if c, err = place.parse(b, id); err == nil && c != nil {
				if c.runtime == "podman" && c.runtimeName == "" {
					if list, err := read(filepath.Dir(filepath.Dir(filepath.Dir(strings.ReplaceAll(place.file, "ID", id)))) + "/containers.json"); err == nil {
						c.runtimeName = podmanName(list, id)
					}
				}
				return c, nil
			}
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("read %s: %w", place.file, err)
		}
	}
	if failed != nil {
		return nil, failed
	}
	return nil, errNoContainer
}

// containerPlaces are the files of the runtimes; ID stands for the container's id.
var containerPlaces = [...]struct {
	file  string
	parse func(b []byte, id string) (*containerFile, error)
}{
	{"run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", parseOCI("containerd")},
	{"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", parseOCI("containerd")},
	{"var/lib/docker/containers/ID/config.v2.json", parseDocker},
	{"var/lib/containers/storage/overlay-containers/ID/userdata/config.json", parseOCI("")},
	{"run/containers/storage/overlay-containers/ID/userdata/config.json", parseOCI("")},
	{"run/containerd/io.containerd.runtime.v2.task/default/ID/config.json", parseOCI("containerd")},
}

// parseOCI reads the annotations of an OCI runtime configuration: those that
// containerd's CRI plugin, CRI-O and nerdctl write. CRI-O and podman share a
// folder; which of them it was, the annotations tell.
func parseOCI(runtime string) func([]byte, string) (*containerFile, error) {
	return func(b []byte, _ string) (*containerFile, error) {
		var config struct {
			Annotations map[string]string `json:"annotations"`
		}
		if err := json.Unmarshal(b, &config); err != nil {
			return nil, err
		}
		get := func(keys ...string) string {
			for _, k := range keys {
				if v := clean(config.Annotations[k], maxName); v != "" {
					return v
				}
			}
			return ""
		}
		c := &containerFile{
			runtime:     runtime,
			name:        get("io.kubernetes.cri.container-name", "io.kubernetes.container.name"),
			podName:     get("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
			namespace:   get("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
			podUID:      get("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"),
			runtimeName: get("nerdctl/name"),
		}
		if c.runtime == "" {
			c.runtime = "podman"
			if get("io.kubernetes.cri-o.ContainerID", "io.kubernetes.cri-o.ContainerType", "io.kubernetes.container.name") != "" {
				c.runtime = "cri-o"
			}
		}
		return c, nil
	}
}

// parseDocker reads dockerd's own file of a container.
func parseDocker(b []byte, _ string) (*containerFile, error) {
	var config struct {
		Name   string
		Config struct{ Labels map[string]string }
	}
	if err := json.Unmarshal(b, &config); err != nil {
		return nil, err
	}
	label := func(k string) string { return clean(config.Config.Labels[k], maxName) }
	c := &containerFile{
		runtime:     "docker",
		name:        label("io.kubernetes.container.name"),
		podName:     label("io.kubernetes.pod.name"),
		namespace:   label("io.kubernetes.pod.namespace"),
		podUID:      label("io.kubernetes.pod.uid"),
		runtimeName: label("com.docker.compose.service"),
		project:     label("com.docker.compose.project"),
		labels:      config.Config.Labels,
	}
	if c.runtimeName == "" {
		c.runtimeName = clean(strings.TrimPrefix(config.Name, "/"), maxName)
	}
	return c, nil
}

// podmanName finds a container's name in the list that containers/storage keeps.
func podmanName(list []byte, id string) string {
	var all []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
	}
	if json.Unmarshal(list, &all) != nil {
		return ""
	}
	for _, c := range all {
		if c.ID == id && len(c.Names) > 0 {
			return clean(c.Names[0], maxName)
		}
	}
	return ""
}
