package lab_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flanneld/cni-plugin/plugintest"
	"flanneld/lab"
)

const (
	podImage   = "flanneld.test/pod:1"
	criTimeout = 30 * time.Second // for one call
)

// containerd is the real one, on one host of the lab, spoken to as a kubelet does.
type containerd struct {
	*lab.Host
	t       testing.TB
	dir     string
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
}

// container is a pod with one container in it.
type container struct {
	sandbox, id, addr string
}

// containerdScript runs in a mount namespace of its own, and lets /sys show the interfaces of the host and still the control groups.
const containerdScript = `set -e
mkdir $0/cgroup
mount --rbind /sys/fs/cgroup $0/cgroup
mount -t sysfs sysfs /sys
mount --rbind $0/cgroup /sys/fs/cgroup
exec containerd --config $0/config.toml`

const containerdConfig = `version = 2
root = "DIR/root"
state = "DIR/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "DIR/sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + podImage + `"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "DIR/bin"
    conf_dir = "DIR/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

// containerd starts one on a host, with the sample of a network's configuration, and returns when it can run pods.
func (c *cluster) containerd(h *lab.Host, flannel string) *containerd {
	c.t.Helper()
	for _, program := range []string{"containerd", "runc", "busybox", "iptables"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") != "" {
			c.t.Fatal(err)
		} else if err != nil {
			c.t.Skip(err)
		}
	}
	r := &containerd{Host: h, t: c.t, dir: filepath.Join(h.Dir(), "ctd")}
	c.ok(r.files(flannel))
	p := must[*lab.Process](c.t)(h.Start("containerd", "unshare", "--mount", "--propagation", "slave", "sh", "-c", containerdScript, r.dir))
	c.t.Cleanup(func() { r.end(p) })
	conn := must[*grpc.ClientConn](c.t)(grpc.NewClient("unix://"+r.dir+"/sock", grpc.WithTransportCredentials(insecure.NewCredentials())))
	c.t.Cleanup(func() { _ = conn.Close() })
	r.runtime, r.images = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	c.await(func() error { return r.networkReady(c.ctx, p) })
	must[string](c.t)(h.Exec(c.ctx, "ctr", "--address", r.dir+"/sock", "--namespace", "k8s.io", "images", "import", "--snapshotter", "native", r.dir+"/pod.tar"))
	c.await(func() error {
		answer, err := r.images.ImageStatus(c.ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: podImage}})
		if err == nil && answer.Image == nil {
			err = errors.New("the image is not there yet")
		}
		return err
	})
	return r
}

// networkReady reports whether containerd runs and has found the network's configuration.
func (r *containerd) networkReady(ctx context.Context, p *lab.Process) error {
	select {
	case <-p.Done():
		r.t.Fatalf("containerd has ended:\n%s", p.Log())
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := r.runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range status.Status.Conditions {
		if !condition.Status {
			return fmt.Errorf("%s: %s", condition.Reason, condition.Message)
		}
	}
	return nil
}

// files writes everything that containerd reads.
func (r *containerd) files(flannel string) error {
	for _, dir := range []string{"bin", "net.d"} {
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o755); err != nil {
			return err
		}
	}
	programs, err := filepath.Glob(filepath.Join(plugintest.Reference(r.t), "*"))
	if err != nil {
		return err
	}
	for _, p := range append(programs, flannel) {
		if err := os.Symlink(p, filepath.Join(r.dir, "bin", filepath.Base(p))); err != nil {
			return err
		}
	}
	sample, err := os.ReadFile("../dist/cni/10-flannel.conflist")
	if err != nil {
		return err
	}
	paths := fmt.Sprintf(`"type": "flannel", "subnetFile": %q, "dataDir": %q, "ipam": {"dataDir": %q},`, r.SubnetFile(), r.dir+"/saved", r.dir+"/addresses")
	image, err := podArchive()
	return errors.Join(err,
		os.WriteFile(r.dir+"/net.d/10-flannel.conflist", bytes.Replace(sample, []byte(`"type": "flannel",`), []byte(paths), 1), 0o644),
		os.WriteFile(r.dir+"/config.toml", []byte(strings.ReplaceAll(containerdConfig, "DIR", r.dir)), 0o644),
		os.WriteFile(r.dir+"/pod.tar", image, 0o644))
}

// run starts a pod whose port 80 is published, with a server in it that says the name.
func (r *containerd) run(ctx context.Context, name string, hostPort int32) (container, error) {
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "test"},
		PortMappings: []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: hostPort}},
		Linux:        &cri.LinuxPodSandboxConfig{},
	}
	sandbox, err := r.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return container{}, err
	}
	c := container{sandbox: sandbox.PodSandboxId}
	made, err := r.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: c.sandbox, SandboxConfig: config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "server"},
			Image:    &cri.ImageSpec{Image: podImage},
			Command:  []string{"/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/busybox", "echo", name},
			Linux:    &cri.LinuxContainerConfig{},
		},
	})
	if err != nil {
		return c, err
	}
	c.id = made.ContainerId
	if _, err := r.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id}); err != nil {
		return c, err
	}
	status, err := r.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: c.sandbox})
	if err == nil {
		c.addr = status.Status.Network.Ip
	}
	return c, err
}

// exec runs a command of busybox in a container.
func (r *containerd) exec(ctx context.Context, c container, command string) (string, error) {
	answer, err := r.runtime.ExecSync(ctx, &cri.ExecSyncRequest{
		ContainerId: c.id, Cmd: append([]string{"/bin/busybox"}, strings.Fields(command)...), Timeout: int64(criTimeout / time.Second),
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

// remove stops a pod and forgets it.
func (r *containerd) remove(ctx context.Context, sandbox string) error {
	if _, err := r.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("stop pod: %w", err)
	}
	if _, err := r.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("remove pod: %w", err)
	}
	return nil
}

// end removes all pods, also those of a test that has failed half way, and ends containerd.
func (r *containerd) end(p *lab.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), criTimeout)
	defer cancel()
	if r.runtime != nil {
		if pods, err := r.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}); err == nil {
			for _, pod := range pods.Items {
				_ = r.remove(ctx, pod.Id)
			}
		}
	}
	pids, _ := filepath.Glob(r.dir + "/state/io.containerd.runtime.v2.task/k8s.io/*/init.pid")
	for _, file := range pids {
		text, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(string(text)); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = p.Stop(ctx)
	for _, pattern := range []string{"/sys/fs/cgroup/k8s.io", "/sys/fs/cgroup/*/k8s.io"} {
		groups, _ := filepath.Glob(pattern)
		for _, g := range groups {
			_ = os.Remove(g) // if no other's pods are in it
		}
	}
}

// left returns what is on the host of pods that are gone.
func (r *containerd) left() error {
	var errs []error
	for _, dir := range []string{"saved", "addresses/flannel"} {
		files, err := os.ReadDir(filepath.Join(r.dir, dir))
		errs = append(errs, err)
		for _, f := range files {
			if f.Name() != "lock" && !strings.HasPrefix(f.Name(), "last_reserved_ip") {
				errs = append(errs, fmt.Errorf("%s/%s is left", dir, f.Name()))
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

// podArchive returns an image with busybox in it, in the form of "docker save".
func podArchive() ([]byte, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	files := map[string]string{"bin/busybox": busybox}
	out, _ := exec.Command("ldd", busybox).Output() // fails if it is static
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
		files[strings.TrimPrefix(lib, "/")] = lib
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, name := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := w.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for name, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := addFile(w, name, text); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return imageOf(layer.Bytes())
}

func imageOf(layer []byte) ([]byte, error) {
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/bin/busybox", "sleep", "86400"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{podImage}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err = errors.Join(addFile(w, "manifest.json", manifest), addFile(w, "config.json", config), addFile(w, "layer.tar", layer), w.Close())
	return out.Bytes(), err
}

func addFile(w *tar.Writer, name string, text []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := io.Copy(w, bytes.NewReader(text))
	return err
}
