; Firmware's tables (ACPI 6.5, 5.2.5 to 5.2.9 and 5.2.12). Nothing is believed without its checksum, and nothing is read
; beyond the length that the checksum covers.

; The CPUs that firmware lists. out: ids_listed, madt_cpus (how many; 0: no table to go by), madt_top (the greatest id)
; clobbers: everything
find_madt:
    ; "APIC"
    mov eax, 0x43495041
    mov edx, read_madt
    call find_table
    jnc .found
    mov dword ptr [madt_cpus], 0
    mov dword ptr [madt_top], 0
.found:
    ret

; The power management timer. out: pm_timer_port, 0 where there is none; clobbers: everything
find_pm_timer:
    mov dword ptr [pm_timer_port], 0
    ; "FACP"
    mov eax, 0x50434146
    mov edx, read_fadt

; Reads the first good table with a signature. in: EAX the signature, EDX its reader (in: ESI the table, ECX its length;
; out: CF set where it is of no use; it may clobber everything); acpi_rsdp where a loader passed it
; out: CF set where there is none; clobbers: everything
find_table:
    mov dword ptr [acpi_signature], eax
    mov dword ptr [acpi_reader], edx
    mov esi, dword ptr [acpi_rsdp]
    call check_rsdp
    jnc .root
    ; the segment that starts with the word at 40Eh: its first KiB
    mov esi, 0x400
    movzx esi, word ptr [esi + 0x0E]
    shl esi, 4
    cmp esi, 0x80000
    jb .bios
    cmp esi, 0x9FC00
    ja .bios
    mov ecx, 1024 / 16
    call .scan
    jnc .root
.bios:
    mov esi, 0xE0000
    mov ecx, 0x20000 / 16
    call .scan
    jc .none
.root:
    ; revision 2 has a second table of tables, with addresses of 64 bits
    cmp byte ptr [esi + 15], 2
    jb .short
    cmp dword ptr [esi + 28], 0
    jne .short
    push esi
    mov eax, dword ptr [esi + 24]
    mov ecx, 8
    mov edx, 0x54445358
    call .tables
    pop esi
    jnc .scanned
.short:
    mov eax, dword ptr [esi + 16]
    mov ecx, 4
    mov edx, 0x54445352
    call .tables
.none:
    ret

; in: ESI where to begin, ECX paragraphs to look at; out: ESI the root pointer, CF set where there is none
.scan:
    push ecx
    call check_rsdp
    pop ecx
    jnc .scanned
    add esi, 16
    dec ecx
    jnz .scan
    stc
.scanned:
    ret

; Reads the first good one of a table of tables. in: EAX its address, ECX bytes an entry, EDX its signature
; out: CF set where there is none
.tables:
    push ecx
    mov esi, eax
    mov eax, edx
    call check_table
    pop ebp
    jc .scanned
    lea edi, [esi + 36]
    lea ebx, [esi + ecx]
.entry:
    mov eax, ebx
    sub eax, edi
    cmp eax, ebp
    jb .missing
    cmp ebp, 8
    jne .low
    ; out of our reach
    cmp dword ptr [edi + 4], 0
    jne .next
.low:
    mov esi, dword ptr [edi]
    mov eax, dword ptr [acpi_signature]
    call check_table
    jc .next
    push edi
    push ebx
    push ebp
    mov eax, dword ptr [acpi_reader]
    call eax
    pop ebp
    pop ebx
    pop edi
    jnc .scanned
.next:
    add edi, ebp
    jmp .entry
.missing:
    stc
    ret

; in: ESI where a root pointer may be; out: CF set where there is none; clobbers: EAX, ECX, EDX
check_rsdp:
    cmp esi, 0x400
    jb .bad
    cmp esi, 0xFFFFF000
    ja .bad
    ; "RSD PTR "
    cmp dword ptr [esi], 0x20445352
    jne .bad
    cmp dword ptr [esi + 4], 0x20525450
    jne .bad
    mov ecx, 20
    call sum_bytes
    jnz .bad
    cmp byte ptr [esi + 15], 2
    jb .good
    mov ecx, dword ptr [esi + 20]
    cmp ecx, 36
    jb .bad
    cmp ecx, 4096
    ja .bad
    call sum_bytes
    jnz .bad
.good:
    clc
    ret
.bad:
    stc
    ret

; in: ESI where a table may be, EAX its signature; out: ECX its length, CF set where there is none
; clobbers: EAX, EDX
check_table:
    cmp esi, 0x400
    jb .bad
    cmp esi, 0xFFFFFFFF - 36
    ja .bad
    cmp dword ptr [esi], eax
    jne .bad
    mov ecx, dword ptr [esi + 4]
    cmp ecx, 36
    jb .bad
    cmp ecx, ACPI_TABLE_BYTES
    ja .bad
    mov eax, esi
    add eax, ecx
    jc .bad
    push ecx
    call sum_bytes
    pop ecx
    jnz .bad
    clc
    ret
.bad:
    stc
    ret

; The sum of ECX bytes at ESI. out: ZF set where it is 0 in eight bits; clobbers: EAX, ECX, EDX
sum_bytes:
    xor eax, eax
    mov edx, esi
.byte:
    add al, byte ptr [edx]
    inc edx
    dec ecx
    jnz .byte
    test al, al
    ret

; Notes the power management timer of a FADT. in: ESI the table, ECX its length
; out: pm_timer_port, CF set where it has none; clobbers: EAX
read_fadt:
    ; PM_TMR_BLK, whose length is 4 where there is one
    cmp ecx, 92
    jb .bad
    cmp byte ptr [esi + 91], 4
    jne .bad
    mov eax, dword ptr [esi + 76]
    test eax, eax
    jz .extended
    cmp eax, 0xFFFF
    ja .bad
    jmp .port
.extended:
    ; X_PM_TMR_BLK, if it is in I/O space
    cmp ecx, 220
    jb .bad
    cmp byte ptr [esi + 208], 1
    jne .bad
    cmp dword ptr [esi + 216], 0
    jne .bad
    mov eax, dword ptr [esi + 212]
    cmp eax, 0xFFFF
    ja .bad
    test eax, eax
    jz .bad
.port:
    mov dword ptr [pm_timer_port], eax
    clc
    ret
.bad:
    stc
    ret

; Notes the enabled CPUs of a MADT. One that is not built as it must be is not believed at all.
; in: ESI the table, ECX its length; out: ids_listed, madt_cpus, madt_top, CF set where it lists no CPU
; clobbers: EAX, EBX, ECX, EDX, EDI
read_madt:
    lea ebx, [esi + ecx]
    mov edi, ids_listed
    mov ecx, APIC_IDS / 32
    xor eax, eax
    mov dword ptr [madt_cpus], eax
    mov dword ptr [madt_top], eax
.clear:
    mov dword ptr [edi], eax
    add edi, 4
    dec ecx
    jnz .clear
    ; entries begin after the address of the local APICs and the flags
    lea edi, [esi + 44]
    cmp edi, ebx
    ja .bad
.entry:
    mov edx, ebx
    sub edx, edi
    jz .end
    cmp edx, 2
    jb .bad
    movzx ecx, byte ptr [edi + 1]
    cmp ecx, 2
    jb .bad
    cmp ecx, edx
    ja .bad
    movzx eax, byte ptr [edi]
    test eax, eax
    jz .apic
    cmp eax, 9
    jne .next
    ; a local x2APIC: id, then flags
    cmp ecx, 16
    jb .bad
    mov eax, dword ptr [edi + 4]
    test dword ptr [edi + 8], 1
    jmp .flags
.apic:
    ; a local APIC: processor, id, flags
    cmp ecx, 8
    jb .bad
    movzx eax, byte ptr [edi + 3]
    cmp eax, 255
    je .next
    test dword ptr [edi + 4], 1
.flags:
    jz .next
    cmp eax, APIC_IDS
    jae .next
    bts dword ptr [ids_listed], eax
    jc .next
    inc dword ptr [madt_cpus]
    cmp eax, dword ptr [madt_top]
    jbe .next
    mov dword ptr [madt_top], eax
.next:
    add edi, ecx
    jmp .entry
.end:
    cmp dword ptr [madt_cpus], 0
    je .bad
    clc
    ret
.bad:
    mov dword ptr [madt_cpus], 0
    mov dword ptr [madt_top], 0
    stc
    ret
