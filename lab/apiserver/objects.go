package main

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
)

// strategy takes objects as they come; the library has checked their metadata.
type strategy struct {
	runtime.ObjectTyper
	namespaced bool
}

func (strategy) GenerateName(base string) string { return names.SimpleNameGenerator.GenerateName(base) }

func (s strategy) NamespaceScoped() bool { return s.namespaced }

func (strategy) PrepareForCreate(context.Context, runtime.Object)                 {}
func (strategy) Validate(context.Context, runtime.Object) field.ErrorList         { return nil }
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (strategy) PrepareForUpdate(_ context.Context, _, _ runtime.Object)          {}
func (strategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string { return nil }
func (strategy) Canonicalize(runtime.Object)                                      {}
func (strategy) AllowCreateOnUpdate(context.Context) bool                         { return false }
func (strategy) AllowUnconditionalUpdate(context.Context) bool                    { return true }

func (strategy) ValidateUpdate(_ context.Context, _, _ runtime.Object) field.ErrorList { return nil }

// nodeStrategy leaves the status alone, which has a path of its own, and podCIDRs that were set.
type nodeStrategy struct{ strategy }

func (nodeStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	obj.(*corev1.Node).Status = old.(*corev1.Node).Status
}

func (nodeStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	is, was := obj.(*corev1.Node).Spec.PodCIDRs, old.(*corev1.Node).Spec.PodCIDRs
	if len(was) > 0 && !slices.Equal(is, was) {
		return field.ErrorList{field.Forbidden(field.NewPath("spec", "podCIDRs"), "set already")}
	}
	return nil
}

// statusOfNode is that path: all but the spec, metadata among it.
type statusOfNode struct{ strategy }

func (statusOfNode) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	obj.(*corev1.Node).Spec = old.(*corev1.Node).Spec
}

func nodes(t runtime.ObjectTyper) *registry.Store {
	s := nodeStrategy{strategy{ObjectTyper: t}}
	resource, singular := corev1.Resource("nodes"), corev1.Resource("node")
	return &registry.Store{
		NewFunc:                  func() runtime.Object { return &corev1.Node{} },
		NewListFunc:              func() runtime.Object { return &corev1.NodeList{} },
		DefaultQualifiedResource: resource, SingularQualifiedResource: singular,
		CreateStrategy: s, UpdateStrategy: s, DeleteStrategy: s, TableConvertor: rest.NewDefaultTableConvertor(resource),
	}
}

func pods(t runtime.ObjectTyper) *registry.Store {
	s := strategy{ObjectTyper: t, namespaced: true}
	resource, singular := corev1.Resource("pods"), corev1.Resource("pod")
	return &registry.Store{
		NewFunc:                  func() runtime.Object { return &corev1.Pod{} },
		NewListFunc:              func() runtime.Object { return &corev1.PodList{} },
		DefaultQualifiedResource: resource, SingularQualifiedResource: singular,
		CreateStrategy: s, UpdateStrategy: s, DeleteStrategy: s, TableConvertor: rest.NewDefaultTableConvertor(resource),
	}
}
