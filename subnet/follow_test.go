package subnet_test

import (
	"errors"
	"strings"
	"testing"

	"flanneld/subnet"
)

func TestWhatOfAConfigurationIsFollowedAtOnce(t *testing.T) {
	const head = `{"Network":"10.5.0.0/16",`
	now := moving(t, vxlan1, "", "", "")
	for _, tt := range []struct {
		name, text string
		adjusts    bool
		refusal    error
		want       string // error
		followed   bool
	}{
		{"other ranges", head + `"SubnetMin":"10.5.9.0","Backend":{"Type":"vxlan"}}`, false, nil, "", false},
		{"a move begins", head + `"Backend":{"Type":"vxlan"},"Next":{"Type":"udp"}}`, false, nil, "", true},
		{"it cannot", head + `"Backend":{"Type":"vxlan"},"Next":{"Type":"udp"}}`, false, errors.New("no key"), "no key", true},
		{"an option", head + `"Backend":{"Type":"vxlan","MTU":1400}}`, true, nil, "", true},
		{"an option that needs a restart", head + `"Backend":{"Type":"vxlan","Port":1}}`, false, nil, "restart", false},
		{"an option and another network", `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}`, true, nil, "restart",
			false},
		{"no JSON", `{`, true, nil, "invalid", false},
	} {
		followed := false
		f := subnet.Following{
			Read: subnet.ParseConfig, Adjusts: func(_, _ subnet.Config) bool { return tt.adjusts },
			Follow: func(subnet.Config) error {
				followed = true
				return tt.refusal
			},
		}
		c, err := f.To([]byte(tt.text), now)
		if followed != tt.followed || (err == nil) != (tt.want == "") ||
			err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: followed %v, %v", tt.name, followed, err)
		}
		if err == nil && len(c.Pools) != 1 {
			t.Errorf("%s: got %+v", tt.name, c)
		}
	}
	f := subnet.Following{Read: subnet.ParseConfig}
	if _, err := f.To([]byte(head+`"Backend":{"Type":"vxlan","MTU":1400}}`), now); err == nil {
		t.Error("without a way to follow, an option changes")
	}
}
