//go:build linux

package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed node manifests crowd
var files embed.FS

const (
	nodeName    = "tollwire-node"
	etcdAddress = "http://127.0.0.1:2379"
)

// node is a Kubernetes of one machine: etcd, API server, controllers, scheduler,
// containerd, kubelet.
type node struct {
	dir     string // everything written is below it
	bin     string // Kubernetes' programs
	env     []string
	more    map[string][]string // further arguments, by program
	running []*program          // in the order of their start
	api     *program
}

// program is a child, its output in dir/NAME.log.
type program struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

func (n *node) start(name, path string, args ...string) (*program, error) {
	return n.startIn("", name, nil, path, args...)
}

// startIn starts a program in a cgroup of the unified hierarchy, "" for this process's
// own, with more in its environment.
func (n *node) startIn(cgroup, name string, env []string, path string, args ...string) (*program, error) {
	log, err := os.OpenFile(filepath.Join(n.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &program{name: name, cmd: exec.Command(path, slices.Concat(args, n.more[name])...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = n.dir, append(n.env[:len(n.env):len(n.env)], env...), log, log
	if cgroup != "" {
		folder, err := os.Open(cgroup)
		if err != nil {
			return nil, err
		}
		defer folder.Close()
		p.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	n.running = append(n.running, p)
	return p, nil
}

// stop ends a program, by force after ten seconds.
func (p *program) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// kill ends a program as a crash would.
func (p *program) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// hang stops a program where it is: what it listens on still accepts.
func (p *program) hang() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// tail is the end of a program's log.
func (n *node) tail(name string) string {
	b, _ := os.ReadFile(filepath.Join(n.dir, name+".log"))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

func newNode(dir, bin string) *node {
	return &node{dir: dir, bin: bin, env: append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "kubeconfig"))}
}

// control starts what makes a cluster but for its nodes: etcd, API server, controllers,
// scheduler.
func (n *node) control(ctx context.Context) error {
	if err := n.configure(); err != nil {
		return err
	}
	_, err := n.start("etcd", "etcd", "--data-dir", "/run/tollwire/etcd", // in memory: nothing waits for a disk
		"--listen-client-urls="+etcdAddress, "--advertise-client-urls="+etcdAddress,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=default=http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	if err := await(ctx, "etcd", func() error { return listens("127.0.0.1:2379") }); err != nil {
		return fmt.Errorf("%w\n%s", err, n.tail("etcd"))
	}
	if err := n.serve(ctx); err != nil {
		return err
	}
	if _, err := n.start("controllers", n.bin+"/kube-controller-manager", "--kubeconfig="+n.dir+"/kubeconfig",
		"--leader-elect=false", "--use-service-account-credentials=false", "--root-ca-file="+n.dir+"/certs/apiserver.crt",
		"--service-account-private-key-file="+n.dir+"/sa.key", "--bind-address=127.0.0.1",
		"--controllers=daemonset-controller,deployment-controller,replicaset-controller,statefulset-controller,job-controller,"+
			"serviceaccount-controller,root-ca-certificate-publisher-controller,namespace-controller,"+
			"garbage-collector-controller,node-lifecycle-controller,pod-garbage-collector-controller"); err != nil {
		return err
	}
	_, err = n.start("scheduler", n.bin+"/kube-scheduler", "--kubeconfig="+n.dir+"/kubeconfig",
		"--leader-elect=false", "--bind-address=127.0.0.1")
	return err
}

// boot starts it all and returns when the node is ready for pods.
func (n *node) boot(ctx context.Context) error {
	if err := n.control(ctx); err != nil {
		return err
	}
	containerd, err := n.start("containerd", "containerd", "--config", n.dir+"/containerd.toml")
	if err != nil {
		return err
	}
	if err := await(ctx, "containerd", func() error { return n.ctr("version") }); err != nil {
		return fmt.Errorf("%w\n%s", err, n.tail(containerd.name))
	}
	image := filepath.Join(n.dir, "clients.tar")
	if err := writeClientImage(image); err != nil {
		return fmt.Errorf("write the clients' image: %w", err)
	}
	if err := n.ctr("images", "import", image); err != nil {
		return err
	}
	kubelet, err := n.start("kubelet", n.bin+"/kubelet", "--config="+n.dir+"/kubelet.yaml", "--kubeconfig="+n.dir+"/kubeconfig",
		"--root-dir="+n.dir+"/kubelet", "--cert-dir="+n.dir+"/kubelet-pki", "--hostname-override="+nodeName, "--node-ip="+nodeAddress)
	if err != nil {
		return err
	}
	err = await(ctx, "the node", func() error {
		out, err := n.kubectl(ctx, "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("ready: %q", out)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.tail(kubelet.name))
	}
	return nil
}

// serve starts the API server, or starts it again.
func (n *node) serve(ctx context.Context) (err error) {
	n.api, err = n.start("apiserver", n.bin+"/kube-apiserver", "--etcd-servers="+etcdAddress,
		"--bind-address="+apiAddress, "--advertise-address="+apiAddress, "--secure-port=443",
		"--cert-dir="+n.dir+"/certs", "--token-auth-file="+n.dir+"/tokens.csv", "--authorization-mode=Node,RBAC",
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+n.dir+"/sa.pub", "--service-account-signing-key-file="+n.dir+"/sa.key",
		"--kubelet-preferred-address-types=InternalIP")
	if err != nil {
		return err
	}
	err = await(ctx, "the API server", func() error {
		_, err := n.kubectl(ctx, "get", "--raw", "/readyz")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.tail("apiserver"))
	}
	return nil
}

// configure writes what the programs read.
func (n *node) configure() error {
	plugins := "/opt/cni/bin"
	if _, err := os.Stat(plugins + "/ptp"); err != nil {
		plugins = "/usr/lib/cni"
	}
	v := map[string]string{"Dir": n.dir, "Socket": n.socket(), "Image": clientImage, "Plugins": plugins, "Node": nodeAddress, "Cgroup": filepath.Base(n.dir)}
	for _, f := range []struct{ to, from string }{
		{"containerd.toml", "node/containerd.toml"}, {"cni/10-pods.conflist", "node/cni.conflist"}, {"kubelet.yaml", "node/kubelet.yaml"},
	} {
		b, err := render(f.from, v)
		if err != nil {
			return err
		}
		if err := n.write(f.to, b); err != nil {
			return err
		}
	}
	token := "cluster-test-admin"
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://%s:443", certificate-authority: %s/certs/apiserver.crt}}]
users: [{name: admin, user: {token: %s}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
`, apiAddress, n.dir, token)
	if err := errors.Join(n.write("kubeconfig", []byte(kubeconfig)),
		n.write("tokens.csv", []byte(token+`,admin,1,"system:masters"`+"\n"))); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"genrsa", "-out", n.dir + "/sa.key", "2048"}, {"rsa", "-in", n.dir + "/sa.key", "-pubout", "-out", n.dir + "/sa.pub"},
	} {
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("openssl %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

func (n *node) socket() string { return "/run/containerd/containerd.sock" }

func (n *node) write(name string, b []byte) error {
	path := filepath.Join(n.dir, name)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644))
}

func render(name string, v any) ([]byte, error) {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, err
	}
	t, err := template.New(name).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, v)
	return b.Bytes(), err
}

// ctr talks to containerd, past the kubelet.
func (n *node) ctr(args ...string) error {
	out, err := exec.Command("ctr", append([]string{"--address", n.socket(), "--namespace", "k8s.io"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// kubectl returns what it prints, without the last newline.
func (n *node) kubectl(ctx context.Context, args ...string) (string, error) {
	return n.kubectlWith(ctx, nil, args...)
}

// apply makes the objects of a manifest.
func (n *node) apply(ctx context.Context, manifest string, v any) error {
	b, err := render("manifests/"+manifest, v)
	if err != nil {
		return err
	}
	_, err = n.kubectlWith(ctx, b, "apply", "-f", "-")
	return err
}

func (n *node) kubectlWith(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.bin+"/kubectl", append([]string{"--cache-dir=" + n.dir + "/kubectl"}, args...)...)
	cmd.Env = n.env
	var out, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(problem.Bytes()))
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

// stop ends every program, the last started first.
func (n *node) stop() {
	for i := len(n.running) - 1; i >= 0; i-- {
		n.running[i].stop()
	}
}

// patience is how long anything may take on a busy machine.
const patience = 4 * time.Minute

// await tries until it works.
func await(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: gave up after %.0f s: %w", what, time.Since(start).Seconds(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// listens says whether a TCP address answers.
func listens(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}
