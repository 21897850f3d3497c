package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flanneld/cni-plugin/plugintest"
	"flanneld/lab"
	"flanneld/need"
)

// containerd is one on a host of the lab, with the sample of a network's configuration.
type containerd struct {
	*lab.Host
	*lab.Containerd
	t testing.TB
}

// container is a pod with one container in it.
type container struct {
	sandbox, id string
	addrs       []netip.Addr // one of each family
}

// containerd starts one on a host, and returns when it can run pods.
func (c *cluster) containerd(h *lab.Host, flannel string) *containerd {
	c.t.Helper()
	need.Program(c.t, "containerd", "runc", "busybox", "iptables")
	r := &containerd{Host: h, t: c.t}
	r.Containerd = must[*lab.Containerd](c.t)(h.Containerd(c.ctx, lab.ContainerdOptions{}))
	c.ok(r.files(flannel))
	c.await(func() error { return r.NetworkReady(c.ctx) })
	return r
}

// files writes what is needed for its network.
func (r *containerd) files(flannel string) error {
	dir := r.Containerd.Dir()
	for _, sub := range []string{"bin", "net.d"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	programs, err := filepath.Glob(filepath.Join(plugintest.Reference(r.t), "*"))
	if err != nil {
		return err
	}
	for _, p := range append(programs, flannel) {
		if err := os.Symlink(p, filepath.Join(dir, "bin", filepath.Base(p))); err != nil {
			return err
		}
	}
	sample, err := os.ReadFile("../dist/cni/10-flannel.conflist")
	if err != nil {
		return err
	}
	paths := fmt.Sprintf(`"type": "flannel", "subnetFile": %q, "dataDir": %q, "ipam": {"dataDir": %q},`, r.SubnetFile(),
		dir+"/saved", dir+"/addresses")
	return os.WriteFile(dir+"/net.d/10-flannel.conflist",
		bytes.Replace(sample, []byte(`"type": "flannel",`), []byte(paths), 1), 0o644)
}

// run starts a pod whose port 80 is published, with a server in it that says the name.
func (r *containerd) run(ctx context.Context, name string, hostPort int32) (container, error) {
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "test"},
		PortMappings: []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: hostPort}},
		Linux:        &cri.LinuxPodSandboxConfig{},
	}
	sandbox, err := r.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return container{}, err
	}
	c := container{sandbox: sandbox.PodSandboxId}
	made, err := r.Runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: c.sandbox, SandboxConfig: config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "server"},
			Image:    &cri.ImageSpec{Image: lab.PodImage},
			Command:  []string{"/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/busybox", "echo", name},
			Linux:    &cri.LinuxContainerConfig{},
		},
	})
	if err != nil {
		return c, err
	}
	c.id = made.ContainerId
	if _, err := r.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id}); err != nil {
		return c, err
	}
	status, err := r.Runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: c.sandbox})
	if err != nil {
		return c, err
	}
	texts := []string{status.Status.Network.Ip}
	for _, more := range status.Status.Network.AdditionalIps {
		texts = append(texts, more.Ip)
	}
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return c, err
		}
		c.addrs = append(c.addrs, a)
	}
	return c, nil
}

// exec runs a command of busybox in a container.
func (r *containerd) exec(ctx context.Context, c container, command string) (string, error) {
	answer, err := r.Runtime.ExecSync(ctx, &cri.ExecSyncRequest{
		ContainerId: c.id, Cmd: append([]string{"/bin/busybox"}, strings.Fields(command)...), Timeout: 30,
	})
	if err != nil {
		return "", err
	}
	out := string(answer.Stdout) + string(answer.Stderr)
	if answer.ExitCode != 0 {
		return out, fmt.Errorf("%s: exit code %d: %s", command, answer.ExitCode, out)
	}
	return out, nil
}

// left returns what is on the host of pods that are gone.
func (r *containerd) left() error {
	var errs []error
	for _, sub := range []string{"saved", "addresses/flannel"} {
		files, err := os.ReadDir(filepath.Join(r.Containerd.Dir(), sub))
		errs = append(errs, err)
		for _, f := range files {
			if f.Name() != "lock" && !strings.HasPrefix(f.Name(), "last_reserved_ip") {
				errs = append(errs, fmt.Errorf("%s/%s is left", sub, f.Name()))
			}
		}
	}
	ports, err := r.Output("ip -o link show master cni0")
	if strings.TrimSpace(ports) != "" {
		errs = append(errs, errors.New("on the bridge: "+ports))
	}
	rules, natErr := r.Output("iptables-save -t nat")
	if strings.Contains(rules, "--dport") {
		errs = append(errs, errors.New("rules of a published port: "+rules))
	}
	return errors.Join(append(errs, err, natErr)...)
}
