package cloud_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
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
