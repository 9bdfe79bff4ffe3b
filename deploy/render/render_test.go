// Package render holds the tests of what deploy/ renders: that kustomize and Helm
// make the same objects, and that these are what the agent needs and no more. It
// is a module of its own, so that the agent's does not need Helm; run it with -count=1,
// since go test does not see that files outside its module have changed.
package render

import (
	"cmp"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

type object = map[string]any

// at walks down an object: numbers index lists.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(object)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func key(o object) string {
	return at(o, "kind").(string) + "/" + at(o, "metadata", "name").(string)
}

// parse reads manifests by kind and name; a ConfigMap's YAML is read too, since
// how it is written does not matter.
func parse(t *testing.T, text string) map[string]object {
	t.Helper()
	all := make(map[string]object)
	for doc := range strings.SplitSeq("\n"+text, "\n---") {
		var o object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if o == nil {
			continue
		}
		if c, ok := at(o, "data", "config.yaml").(string); ok {
			var inner any
			if err := yaml.Unmarshal([]byte(c), &inner); err != nil {
				t.Fatalf("configuration: %v in:\n%s", err, c)
			}
			at(o, "data").(object)["config.yaml"] = inner
		}
		all[key(o)] = o
	}
	return all
}

func kustomize(t *testing.T, dir string) map[string]object {
	t.Helper()
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(b))
}

func helm(t *testing.T, release string, values object) map[string]object {
	t.Helper()
	c, err := loader.Load("../helm/tollwire")
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: release, Namespace: "tollwire"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(c, v)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			text.WriteString("\n---\n" + files[name])
		}
	}
	return parse(t, text.String())
}

// same compares what both rendered. The namespace is Helm's own to make.
func same(t *testing.T, k, h map[string]object) {
	t.Helper()
	delete(k, "Namespace/tollwire")
	if a, b := slices.Sorted(maps.Keys(k)), slices.Sorted(maps.Keys(h)); !slices.Equal(a, b) {
		t.Fatalf("kustomize makes %v, Helm %v", a, b)
	}
	for name := range k {
		differences(t, name, k[name], h[name])
	}
}

func differences(t *testing.T, where string, a, b any) {
	t.Helper()
	x, ok := a.(object)
	y, also := b.(object)
	if ok && also {
		for _, k := range slices.Sorted(maps.Keys(x)) {
			differences(t, where+"."+k, x[k], y[k])
		}
		for k := range y {
			if _, ok := x[k]; !ok {
				t.Errorf("%s.%s: only Helm says %v", where, k, y[k])
			}
		}
		return
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s: kustomize says %v, Helm %v", where, a, b)
	}
}

func TestSame(t *testing.T) {
	same(t, kustomize(t, "../daemonset"), helm(t, "tollwire", nil))
}

func TestSameWithPodMonitor(t *testing.T) {
	same(t, kustomize(t, "../podmonitor"), helm(t, "tollwire", object{"podMonitor": object{"enabled": true}}))
}

func TestPod(t *testing.T) {
	spec := at(kustomize(t, "../daemonset")["DaemonSet/tollwire"], "spec", "template", "spec")
	c := at(spec, "containers", 0)
	for _, x := range []struct {
		got  any
		want any
		what string
	}{
		{at(spec, "hostPID"), true, "hostPID"},
		{at(spec, "hostNetwork"), nil, "hostNetwork"},
		{at(spec, "enableServiceLinks"), false, "enableServiceLinks"},
		{at(spec, "securityContext", "seccompProfile", "type"), "RuntimeDefault", "seccomp profile"},
		{at(c, "securityContext", "privileged"), false, "privileged"},
		{at(c, "securityContext", "allowPrivilegeEscalation"), false, "allowPrivilegeEscalation"},
		{at(c, "securityContext", "readOnlyRootFilesystem"), true, "readOnlyRootFilesystem"},
		{at(c, "securityContext", "capabilities", "drop", 0), "ALL", "dropped capabilities"},
		{at(c, "livenessProbe", "httpGet", "path"), "/healthz", "liveness probe"},
		{at(c, "readinessProbe", "httpGet", "path"), "/readyz", "readiness probe"},
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("%s: %v, want %v", x.what, x.got, x.want)
		}
	}
	for _, m := range at(c, "volumeMounts").([]any) {
		if at(m, "readOnly") != true && at(m, "name") != "state" { // the agent's own folder
			t.Errorf("%v can be written to", at(m, "name"))
		}
		if at(m, "subPath") != nil {
			t.Errorf("%v: a subPath is never updated", at(m, "name"))
		}
	}
	want := object{"name": "tracefs", "mountPath": "/sys/kernel/tracing", "readOnly": true}
	if mounts := at(c, "volumeMounts").([]any); !slices.ContainsFunc(mounts, func(m any) bool { return reflect.DeepEqual(m, want) }) {
		t.Errorf("no %v", want)
	}
	for _, v := range at(spec, "volumes").([]any) {
		p := at(v, "hostPath", "path")
		if p != nil && p != "/sys/kernel/tracing" && p != "/var/lib/tollwire" {
			t.Errorf("%v is a folder of the node", p)
		}
		if p == "/var/lib/tollwire" && (at(v, "name") != "state" || at(v, "hostPath", "type") != "DirectoryOrCreate") {
			t.Errorf("%v", v)
		}
	}
	// systemd's unit may do as much, and says so in its own words.
	unit, err := os.ReadFile("../systemd/tollwire.service")
	if err != nil {
		t.Fatal(err)
	}
	var caps []string
	for _, a := range at(c, "securityContext", "capabilities", "add").([]any) {
		caps = append(caps, "CAP_"+a.(string))
	}
	if want := "CapabilityBoundingSet=" + strings.Join(caps, " ") + "\n"; !strings.Contains(string(unit), want) {
		t.Errorf("the unit does not say %q", want)
	}
}

// What may be set is set where it belongs.
func TestValues(t *testing.T) {
	all := helm(t, "llm", object{
		"config":        object{"export": object{"listen": "[::]:9999"}, "attribution": object{"pod_labels": []any{"gpu"}}},
		"keySecret":     "secret",
		"hostNetwork":   true,
		"image":         object{"repository": "r/t", "tag": "x"},
		"networkPolicy": object{"enabled": false},
		"podLabels":     object{"team": "a"},
	})
	if len(all) != 5 || all["NetworkPolicy/llm-tollwire"] != nil {
		t.Errorf("objects: %v", slices.Sorted(maps.Keys(all)))
	}
	d := at(all["DaemonSet/llm-tollwire"], "spec", "template")
	for _, x := range []struct {
		got, want any
		what      string
	}{
		{at(d, "spec", "containers", 0, "image"), "r/t:x", "image"},
		{at(d, "spec", "containers", 0, "ports", 0, "containerPort"), 9999.0, "port"},
		{at(d, "spec", "hostNetwork"), true, "hostNetwork"},
		{at(d, "metadata", "labels", "team"), "a", "label"},
		{at(d, "metadata", "labels", "app.kubernetes.io/instance"), "llm", "instance"},
		{at(all["ConfigMap/llm-tollwire"], "data", "config.yaml", "key_file"), "/etc/tollwire-key/key", "key_file"},
		{at(all["ConfigMap/llm-tollwire"], "data", "config.yaml", "attribution", "pod_labels", 0), "gpu", "pod_labels"},
		{at(all["ConfigMap/llm-tollwire"], "data", "config.yaml", "log", "format"), "json", "a default beside what was set"},
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("%s: %v, want %v", x.what, x.got, x.want)
		}
	}
	for path, want := range map[string]object{
		"":          {"name": "state", "emptyDir": object{"sizeLimit": "1Gi"}},
		"/srv/llms": {"name": "state", "hostPath": object{"path": "/srv/llms", "type": "DirectoryOrCreate"}},
	} {
		d := helm(t, "tollwire", object{"state": object{"hostPath": path}})["DaemonSet/tollwire"]
		if all := at(d, "spec", "template", "spec", "volumes").([]any); !slices.ContainsFunc(all, func(v any) bool { return reflect.DeepEqual(v, want) }) {
			t.Errorf("state in %q: %v", path, all)
		}
	}
	volumes := at(d, "spec", "volumes").([]any)
	if !slices.ContainsFunc(volumes, func(v any) bool { return cmp.Or(at(v, "secret", "secretName"), any("")) == "secret" }) {
		t.Errorf("volumes: %v", volumes)
	}
}
