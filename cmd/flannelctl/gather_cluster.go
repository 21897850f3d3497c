package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"flanneld/api"
	"flanneld/doctor"
	"flanneld/options"
)

// Where the service account of a pod says which namespace it is of.
const accountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// pod says which pod this program runs in; nil: none.
func pod() *doctor.Pod {
	if os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return nil
	}
	p := &doctor.Pod{Namespace: os.Getenv("POD_NAMESPACE"), Node: os.Getenv("NODE_NAME")}
	if p.Namespace == "" {
		text, _ := os.ReadFile(accountNamespace) // absent without an account: the name of the manifest
		p.Namespace = cmp.Or(strings.TrimSpace(string(text)), "kube-flannel")
	}
	if p.Node == "" {
		p.Node, _ = os.Hostname() // pods of the host's network have its name
	}
	return p
}

// gatherCluster asks the daemon what the API server says.
func gatherCluster(ctx context.Context, a *app, f *doctor.Facts) {
	f.Kubernetes, f.KubernetesErr = ask[api.Kubernetes](ctx, a, api.PathKubernetes)
	f.Leases, _ = ask[api.Leases](ctx, a, api.PathLeases) // without an answer, the check of the daemon says so
}

// Where runtimes look for configurations and programs of CNI. Debian's package has its own folder for the latter.
const cniFolder = "/etc/cni/net.d"

var cniBinFolders = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}

// readCNI reads the files that container runtimes read, in their order.
func readCNI(dir string, bin []string) doctor.CNI {
	out := doctor.CNI{Dir: dir, Programs: map[string]bool{}}
	for _, folder := range bin {
		if _, err := os.Stat(folder); err == nil {
			out.Bin = append(out.Bin, folder)
		}
	}
	entries, err := os.ReadDir(dir)
	if out.Err = err; err != nil {
		return out
	}
	for _, e := range entries { // sorted by name
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		file := doctor.CNIFile{Name: e.Name()}
		file.Plugins, file.Err = readCNIFile(filepath.Join(dir, e.Name()))
		out.Files = append(out.Files, file)
		for _, p := range file.Plugins {
			for _, program := range p.Needs() {
				out.Programs[program] = out.Programs[program] || executable(out.Bin, program)
			}
		}
	}
	return out
}

func executable(folders []string, program string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		info, err := os.Stat(filepath.Join(folder, filepath.Base(program)))
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	})
}

// cniEntry is the entry of a plugin in a file.
type cniEntry struct {
	Type       string `json:"type"`
	SubnetFile string `json:"subnetFile"`
	IPAM       struct {
		Type string `json:"type"`
	} `json:"ipam"`
	Delegate struct {
		Type   string `json:"type"`
		Bridge string `json:"bridge"`
	} `json:"delegate"`
}

// readCNIFile reads a list of plugins, or a single one.
func readCNIFile(path string) ([]doctor.CNIPlugin, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list struct {
		cniEntry
		Plugins []cniEntry `json:"plugins"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	if list.Type != "" {
		list.Plugins = append(list.Plugins, list.cniEntry)
	}
	var out []doctor.CNIPlugin
	for _, e := range list.Plugins {
		out = append(out, doctor.CNIPlugin{
			Type: e.Type, Delegate: cmp.Or(e.Delegate.Type, "bridge"), IPAM: cmp.Or(e.IPAM.Type, "host-local"),
			Bridge: cmp.Or(e.Delegate.Bridge, "cni0"), SubnetFile: cmp.Or(e.SubnetFile, options.Defaults().SubnetFile),
		})
	}
	return out, nil
}
