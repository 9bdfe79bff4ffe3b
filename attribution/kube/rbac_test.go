package kube

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// The role that is deployed grants what a Watcher uses, and nothing else.
func TestRole(t *testing.T) {
	b, err := os.ReadFile("../../deploy/daemonset/clusterrole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	role, _, _ := strings.Cut(string(b), "\n---")
	var c struct {
		Rules []struct{ APIGroups, Resources, Verbs []string }
	}
	if err := yaml.Unmarshal([]byte(role), &c); err != nil {
		t.Fatal(err)
	}
	var granted []Resource
	for _, r := range c.Rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				granted = append(granted, Resource{group, resource, r.Verbs})
			}
		}
	}
	if want := Wants(); !reflect.DeepEqual(granted, want) {
		t.Errorf("granted %v, used %v", granted, want)
	}
}
