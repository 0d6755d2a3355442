package exponent

import (
	"errors"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/parser"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/version"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

var errLong = errors.New("unable to parse quantity: its exponent is too long")

// Environment is upstream's for expressions, with a quantity() that refuses long exponents: what is computed with one is no part of an expression's cost.
var Environment = sync.OnceValue(func() *environment.EnvSet {
	parse := cel.Overload("string_to_quantity", []*cel.Type{cel.StringType}, apiservercel.QuantityType, cel.UnaryBinding(func(arg ref.Val) ref.Val {
		q, err := read(arg)
		if err != nil {
			return types.WrapErr(err)
		}
		return apiservercel.Quantity{Quantity: &q}
	}))
	is := cel.Overload("is_quantity_string", []*cel.Type{cel.StringType}, cel.BoolType, cel.UnaryBinding(func(arg ref.Val) ref.Val {
		_, err := read(arg)
		return types.Bool(err == nil)
	}))
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0), EnvOptions: []cel.EnvOption{cel.Function("quantity", parse), cel.Function("isQuantity", is)},
	})
	if err != nil {
		panic(err) // these functions have other signatures upstream than here
	}
	return set
})

func read(arg ref.Val) (resource.Quantity, error) {
	text, ok := arg.Value().(string)
	switch {
	case !ok:
		return resource.Quantity{}, errors.New("no such overload")
	case Long(text):
		return resource.Quantity{}, errLong
	}
	return resource.ParseQuantity(text)
}

// Expression refuses an expression whose quantities could have long exponents, where Environment cannot be used. Others than written ones could.
func Expression(text string) error {
	p, err := parser.NewParser(parser.Macros(parser.AllMacros...), parser.EnableOptionalSyntax(true))
	if err != nil {
		return err
	}
	tree, errs := p.Parse(common.NewTextSource(text))
	if len(errs.GetErrors()) > 0 {
		return nil // for the compiler to say
	}
	root := ast.NavigateAST(tree)
	for _, call := range append(ast.MatchDescendants(root, ast.FunctionMatcher("quantity")), ast.MatchDescendants(root, ast.FunctionMatcher("isQuantity"))...) {
		args := call.AsCall().Args()
		if len(args) != 1 {
			continue
		}
		written, ok := args[0].AsLiteral().(types.String)
		switch {
		case args[0].Kind() != ast.LiteralKind || !ok:
			return errors.New("quantity() and isQuantity() take a text that is written out")
		case Long(string(written)):
			return errLong
		}
	}
	return nil
}
