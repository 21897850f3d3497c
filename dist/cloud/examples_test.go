package cloud_test

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

func TestTheComposeFileIsOneOfDockerCompose(t *testing.T) {
	for _, c := range []struct {
		name    string
		env     []string
		profile string
		wrong   string
	}{
		{"the first host", []string{"FIRST=192.0.2.1"}, "first", ""},
		{"another host", []string{"FIRST=192.0.2.1", "TOKEN=t"}, "other", ""},
		{"without the address of the first host", nil, "first", "address of the first host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := cli.NewProjectOptions([]string{"../examples/compose/compose.yaml"}, cli.WithEnv(c.env),
				cli.WithProfiles([]string{c.profile}))
			if err != nil {
				t.Fatal(err)
			}
			p, err := o.LoadProject(context.Background())
			switch {
			case c.wrong != "":
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("got %v, want an error that says %q", err, c.wrong)
				}
				return
			case err != nil:
				t.Fatal(err)
			}
			if names := p.ServiceNames(); !slices.Equal(names, []string{c.profile}) {
				t.Fatalf("services %s, want %s alone", names, c.profile)
			}
			s := p.Services[c.profile]
			if s.NetworkMode != "host" || !slices.Equal(s.CapAdd, []string{"NET_ADMIN", "NET_RAW"}) || len(s.Volumes) != 2 ||
				s.Privileged {
				t.Errorf("network %q, capabilities %s, volumes %v, privileged %t", s.NetworkMode, s.CapAdd, s.Volumes, s.Privileged)
			}
		})
	}
}

func TestTheNomadJobNamesTheNetworkOfTheSample(t *testing.T) {
	file, problems := hclparse.NewParser().ParseHCLFile("../examples/nomad/web.nomad.hcl")
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	group := block(t, block(t, file.Body, "job"), "group")
	if got := text(t, block(t, group, "network"), "mode"); got != "cni/flannel" {
		t.Errorf("the network is %q, want that of the configuration of CNI, flannel", got)
	}
	conf, err := os.ReadFile("../cni/10-flannel.conflist")
	if err != nil || !strings.Contains(string(conf), `"name": "flannel"`) {
		t.Errorf("the configuration of CNI has another name: %v\n%s", err, conf)
	}
	if got := text(t, block(t, group, "service"), "address_mode"); got != "alloc" {
		t.Errorf("the service has address_mode %q, want alloc: the container's address", got)
	}
}

// block returns what is in the first block of a type.
func block(t *testing.T, body hcl.Body, kind string) hcl.Body {
	t.Helper()
	for _, b := range body.(*hclsyntax.Body).Blocks {
		if b.Type == kind {
			return b.Body
		}
	}
	t.Fatalf("no block %s", kind)
	return nil
}

// text returns a string of a block.
func text(t *testing.T, body hcl.Body, name string) string {
	t.Helper()
	attributes := body.(*hclsyntax.Body).Attributes
	a := attributes[name]
	if a == nil {
		t.Fatalf("no %s among %s", name, slices.Sorted(maps.Keys(attributes)))
	}
	v, problems := a.Expr.Value(nil)
	if problems.HasErrors() || v.Type() != cty.String {
		t.Fatalf("%s: %v", name, problems)
	}
	return v.AsString()
}
