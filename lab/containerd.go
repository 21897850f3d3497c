package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Containerd is the real one, on a host of the lab, spoken to as a kubelet does. Its pods are made of the image of
// PodArchive.
type Containerd struct {
	*Process
	Runtime cri.RuntimeServiceClient
	Images  cri.ImageServiceClient

	host *Host
	dir  string
}

// ContainerdOptions say where it finds things in its view of the file system.
type ContainerdOptions struct {
	Plugins  string // folder of the CNI plugins; empty: "bin" in Dir
	Networks string // folder of their configurations; empty: "net.d" in Dir
	// Setup is a script that changes this view, which no one else shares, before containerd starts.
	Setup string
}

// criTimeout bounds what is done to end all pods.
const criTimeout = 30 * time.Second

// containerdScript runs in a mount namespace of its own, and lets /sys show the interfaces of the host and still the
// control groups.
const containerdScript = `set -e
mkdir -p "$0/cgroup"
mount --rbind /sys/fs/cgroup "$0/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$0/cgroup" /sys/fs/cgroup
SETUP
exec containerd --config "$0/config.toml"`

const containerdConfig = `version = 2
root = "DIR/root"
state = "DIR/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "DIR/sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + PodImage + `"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "PLUGINS"
    conf_dir = "NETWORKS"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

// Containerd starts one, and returns when it answers and has the image for pods. It ends with all its pods when the lab
// closes.
func (h *Host) Containerd(ctx context.Context, o ContainerdOptions) (*Containerd, error) {
	r := &Containerd{host: h, dir: filepath.Join(h.dir, "ctd")}
	if o.Plugins == "" {
		o.Plugins = filepath.Join(r.dir, "bin")
	}
	if o.Networks == "" {
		o.Networks = filepath.Join(r.dir, "net.d")
	}
	image, err := PodArchive()
	if err != nil {
		return nil, err
	}
	config := strings.NewReplacer("DIR", r.dir, "PLUGINS", o.Plugins, "NETWORKS", o.Networks).Replace(containerdConfig)
	err = errors.Join(
		os.MkdirAll(r.dir, 0o755),
		os.WriteFile(r.dir+"/config.toml", []byte(config), 0o644),
		os.WriteFile(r.dir+"/pod.tar", image, 0o644))
	if err != nil {
		return nil, fmt.Errorf("write containerd's files: %w", err)
	}
	script := strings.Replace(containerdScript, "SETUP", o.Setup, 1)
	if r.Process, err = h.Start("containerd", "unshare", "--mount", "--propagation", "slave", "sh", "-c", script,
		r.dir); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+r.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("containerd client: %w", err)
	}
	h.lab.onClose(func() { _ = conn.Close() })
	r.Runtime, r.Images = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	h.lab.onClose(r.End)
	if err := Await(ctx, func() error { return r.answers(ctx) }); err != nil {
		return nil, err
	}
	return r, r.Import(ctx, r.dir+"/pod.tar", PodImage)
}

// Dir returns the folder of containerd's files.
func (r *Containerd) Dir() string { return r.dir }

// Socket returns the path of the socket that containerd listens on.
func (r *Containerd) Socket() string { return filepath.Join(r.dir, "sock") }

func (r *Containerd) answers(ctx context.Context) error {
	select {
	case <-r.Done():
		return fmt.Errorf("containerd has ended:\n%s", lastLines(r.Log(), 20))
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := r.Runtime.Version(ctx, &cri.VersionRequest{})
	return err
}

// NetworkReady reports whether containerd can run pods: it must have found a network's configuration.
func (r *Containerd) NetworkReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := r.Runtime.Status(ctx, &cri.StatusRequest{})
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

// Import loads an archive of images, and waits until the one of this name can be used.
func (r *Containerd) Import(ctx context.Context, file, name string, args ...string) error {
	command := append([]string{"ctr", "--address", r.Socket(), "--namespace", "k8s.io",
		"images", "import", "--snapshotter", "native"}, args...)
	if _, err := r.host.Exec(ctx, append(command, file)...); err != nil {
		return err
	}
	return Await(ctx, func() error {
		answer, err := r.Images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
		if err == nil && answer.Image == nil {
			err = fmt.Errorf("the image %s is not there", name)
		}
		return err
	})
}

// Remove stops a pod and forgets it.
func (r *Containerd) Remove(ctx context.Context, sandbox string) error {
	if _, err := r.Runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("stop pod: %w", err)
	}
	if _, err := r.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("remove pod: %w", err)
	}
	return nil
}

// End removes all pods and ends containerd. Its files stay, so that another one can go on with them.
func (r *Containerd) End() {
	ctx, cancel := context.WithTimeout(context.Background(), criTimeout)
	defer cancel()
	if pods, err := r.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}); err == nil {
		for _, pod := range pods.Items {
			_ = r.Remove(ctx, pod.Id)
		}
	}
	r.killTasks(false)
	_ = r.Stop(ctx)
	for _, pattern := range []string{"/sys/fs/cgroup/k8s.io", "/sys/fs/cgroup/*/k8s.io"} {
		groups, _ := filepath.Glob(pattern)
		for _, g := range groups {
			_ = os.Remove(g) // if no other's pods are in it
		}
	}
}

// Crash ends containerd and all its pods as a loss of power does: no plugin runs, no pod is removed, and what stood in
// memory is gone. Another one can go on with the files of the disk.
func (r *Containerd) Crash() error {
	r.Kill()
	r.killTasks(true)
	if err := os.RemoveAll(r.dir + "/state"); err != nil {
		return fmt.Errorf("remove containerd's state: %w", err)
	}
	return nil
}

// killTasks kills the first process of each container, and with it the shim that is its parent, if shims are to go as
// well.
func (r *Containerd) killTasks(shims bool) {
	files, _ := filepath.Glob(r.dir + "/state/io.containerd.runtime.v2.task/k8s.io/*/init.pid")
	var pids []int
	for _, file := range files {
		text, _ := os.ReadFile(file)
		pid, err := strconv.Atoi(string(text))
		if err != nil || pid <= 1 {
			continue
		}
		pids = append(pids, pid)
		if shim := shimOf(pid); shims && shim > 1 {
			pids = append(pids, shim)
		}
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// shimOf returns the shim that is the parent of a process, 0 if there is none.
func shimOf(pid int) (parent int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "PPid: %d", &parent)
	}
	if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent)); !strings.HasPrefix(string(name), "containerd-shim") {
		return 0
	}
	return parent
}
