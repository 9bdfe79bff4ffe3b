package cli
import ("testing";"os";"context";"time";"bytes")
func TestTmpImport(t *testing.T){
 var b bytes.Buffer
 if err:=Import(context.Background(),ImportConfig{Kind:"genai-prices",From:"/work/shared/corpora/genai-prices/data.json",Date:time.Date(2026,8,21,0,0,0,0,time.UTC),Name:"pydantic/genai-prices 47df840a, MIT"},&b,os.Stderr);err!=nil{t.Fatal(err)}
 os.WriteFile("../book/default.yaml",b.Bytes(),0o644)
}
