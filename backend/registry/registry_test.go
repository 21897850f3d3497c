package registry

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"flanneld/backend"
	"flanneld/backend/backendtest"
	"flanneld/backend/check"
	wgoptions "flanneld/backend/wireguard/options"
	"flanneld/ip"
	"flanneld/subnet"
)

func TestEveryBackendThatAConfigurationMayNameCanBeMade(t *testing.T) {
	if made, named := slices.Sorted(maps.Keys(entries)), check.Types(); !slices.Equal(made, named) {
		t.Errorf("backends %q, configurations may name %q", made, named)
	}
}

func TestEveryBackendPassesTheContract(t *testing.T) {
	networks := map[string]string{
		"IPv4":          `"Network":"10.5.0.0/16"`,
		"both families": `"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"`,
	}
	for name := range entries {
		for families, network := range networks {
			config := fmt.Sprintf(`{%s,"Backend":{"Type":%q}}`, network, name)
			if _, err := check.Network([]byte(config)); err != nil {
				continue // it carries IPv4 only
			}
			t.Run(name+", "+families, func(t *testing.T) { backendtest.Run(t, config, create) })
		}
	}
}

func create(t *testing.T, c subnet.Config, h ip.Host, dir string) backend.Planner {
	t.Helper()
	b, err := New(t.Context(), Env{Config: c, Host: h, Files: noFiles{},
		Keys: wgoptions.KeyFiles{filepath.Join(dir, "key")}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// noFiles keeps no open files.
type noFiles struct{}

func (noFiles) Take(string) []int  { return nil }
func (noFiles) Keep(string, []int) {}
