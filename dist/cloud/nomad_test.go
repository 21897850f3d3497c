package cloud_test

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	nomad "github.com/hashicorp/nomad/api"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"
)

// nomadJob returns what is in the block "job" of the example.
func nomadJob(t *testing.T) *hclsyntax.Body {
	t.Helper()
	file, problems := hclparse.NewParser().ParseHCLFile("../examples/nomad/web.nomad.hcl")
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	return block(t, file.Body, "job").(*hclsyntax.Body)
}

// wrongJob has three mistakes.
const wrongJob = `group "g" {
  count    = "many"
  nonsense = 1
  network {
    port "p" { too = 80 }
  }
}
`

// TestNomadKnowsAllThatTheJobSays compares the job with the types of Nomad's own client library: their tags are the
// names of attributes and blocks. Nomad itself is not run, as its licence is not one of open source.
func TestNomadKnowsAllThatTheJobSays(t *testing.T) {
	for _, what := range unknown("job", nomadJob(t), reflect.TypeFor[nomad.Job]()) {
		t.Errorf("Nomad does not know %s", what)
	}

	wrong, problems := hclsyntax.ParseConfig([]byte(wrongJob), "wrong.hcl", hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	got := unknown("job", wrong.Body.(*hclsyntax.Body), reflect.TypeFor[nomad.Job]())
	slices.Sort(got)
	want := []string{"job.group.count: a number is required", "job.group.network.port.too", "job.group.nonsense"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q in a wrong job, want %q", got, want)
	}
}

// unknown returns what stands in a body and is no field of a type, or one of another type. A map takes any names.
func unknown(path string, body *hclsyntax.Body, of reflect.Type) (out []string) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() == reflect.Map {
		return nil
	}
	attributes, blocks := map[string]reflect.Type{}, map[string]reflect.Type{}
	for f := range of.Fields() {
		name, kind, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		if kind == "block" {
			blocks[name] = f.Type
		} else {
			attributes[name] = f.Type
		}
	}
	for name, a := range body.Attributes {
		value, problems := a.Expr.Value(nil)
		want, ok := attributes[name]
		switch {
		case !ok:
			out = append(out, path+"."+name)
		case problems.HasErrors():
			out = append(out, problems.Error())
		default:
			kind, err := gocty.ImpliedType(reflect.Zero(want).Interface())
			if err == nil {
				_, err = convert.Convert(value, kind)
			}
			if err != nil {
				out = append(out, path+"."+name+": "+err.Error())
			}
		}
	}
	for _, b := range body.Blocks {
		if inner, ok := blocks[b.Type]; ok {
			out = append(out, unknown(path+"."+b.Type, b.Body, inner)...)
		} else {
			out = append(out, path+"."+b.Type)
		}
	}
	return out
}

func TestTheNomadJobNamesTheNetworkOfTheSample(t *testing.T) {
	group := block(t, nomadJob(t), "group")
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
