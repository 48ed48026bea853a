"""What a pass costs as plain data: tables of reports, and cost sheets at any size. No torch, no transformers."""
